//! Audio files to PCM as the autoencoder wants it: stereo at 48 kHz within -1 to 1.
//!
//! Files come from strangers. They are decoded packet by packet, so that memory is bounded by the
//! length that is allowed and not by what a header claims; whatever is wrong with one is an error
//! that names it.

use super::edits::{self, Edit};
use super::guard::{Guard, Spent};
use super::opus::Opus;
use super::resample::Resampler;
use super::{CHANNELS, Pcm};
use crate::error::{Error, Result};
use crate::song::Watch;
use std::fs::File;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::well_known::CODEC_ID_OPUS;
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as Fault;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, Track, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream};
use symphonia::core::meta::MetadataOptions;
use symphonia::core::packet::Packet;

/// Samples per second and channel of what is read.
pub const RATE: u32 = 48_000;
/// Longest recording in seconds that is read unless the caller says otherwise.
pub const MAX_SECONDS: f64 = 600.0;

/// What codecs pad a recording with, in seconds; a song of exactly the limit must pass.
const PADDING_S: f64 = 0.5;
/// No honest recording within the limit is as large.
const MAX_BYTES: u64 = 4 << 30;
/// Sample rates that recordings have.
const RATES: std::ops::RangeInclusive<u32> = 1_000..=384_000;
/// Channels, and samples of one packet, that recordings have. Decoders set as much memory aside as
/// a header claims.
const MAX_CHANNELS: usize = 64;
const MAX_PACKET: u64 = 1 << 22;
/// Undecodable packets that are overlooked, as a share of all, and in any case.
const BAD_SHARE: usize = 20;
const BAD_FEW: usize = 2;
/// Packets that may bring nothing, one after another.
const BARREN: usize = 1_000;
/// A file may end this much before what its header declares, in seconds and as a share.
const SHORT_S: f64 = 0.2;
const SHORT_SHARE: f64 = 0.01;
/// Bytes of data from which a length in a header stands for "not known".
const UNKNOWN_BYTES: u64 = 0xFFFF_0000;

const CONVERT: &str = "convert it to wav, flac, mp3, ogg, opus or m4a (AAC-LC)";

/// Reads a file of at most `most_s` seconds: interleaved stereo at [`RATE`]. Mono is doubled; of
/// more than two channels the first two are taken. The content tells the format, not the name.
/// What an encoder adds in front and behind is cut where the file says how much it is.
///
/// # Errors
/// [`Error::Request`] when it is not a file, not audio, broken, cut off, too long or not numbers;
/// [`Error::Cancelled`].
pub fn read(path: &Path, most_s: f64, watch: &dyn Watch) -> Result<Vec<f32>> {
    let name = path.display().to_string();
    let refuse = |e: std::io::Error| match e.kind() {
        ErrorKind::NotFound => fault(&name, "does not exist", "name an audio file"),
        _ => fault(
            &name,
            &format!("cannot be read: {e}"),
            "check its permissions",
        ),
    };
    let what_it_is = |m: std::fs::Metadata| match m.is_file() {
        true => Ok(m.len()),
        false => Err(fault(&name, "is not a regular file", "name an audio file")),
    };
    // Opening a pipe would wait for its writer: look first. And again, at what was opened.
    what_it_is(path.metadata().map_err(refuse)?)?;
    let file = File::open(path).map_err(refuse)?;
    let bytes = what_it_is(file.metadata().map_err(refuse)?)?;
    read_source(Box::new(file), bytes, &name, most_s, watch)
}

/// [`read`] for a file that is in memory; `name` is for messages.
///
/// # Errors
/// As [`read`].
pub fn read_bytes(bytes: Vec<u8>, name: &str, most_s: f64, watch: &dyn Watch) -> Result<Vec<f32>> {
    let len = bytes.len() as u64;
    let source = Box::new(std::io::Cursor::new(bytes));
    read_source(source, len, name, most_s, watch)
}

/// Whether there is nothing to hear in it.
pub fn is_silent(pcm: &Pcm) -> bool {
    pcm.samples.iter().all(|x| x.abs() < 1e-6)
}

fn fault(name: &str, what: &str, remedy: &str) -> Error {
    Error::Request(format!("{name} {what}; {remedy}"))
}

fn read_source(
    source: Box<dyn MediaSource>,
    bytes: u64,
    name: &str,
    most_s: f64,
    watch: &dyn Watch,
) -> Result<Vec<f32>> {
    if bytes == 0 {
        return Err(fault(name, "is empty", "send the whole file"));
    }
    if bytes > MAX_BYTES {
        let what = format!("has {bytes} bytes, more than {MAX_BYTES}");
        return Err(fault(name, &what, "send a shorter recording"));
    }
    let reading = Reading {
        name,
        most_s,
        watch,
    };
    // The decoders are other people's; a fault of theirs must not end a server.
    let read = catch_unwind(AssertUnwindSafe(|| reading.run(source)));
    read.unwrap_or_else(|_| Err(fault(name, "breaks the decoder of its format", CONVERT)))
}

/// One file on its way in.
struct Reading<'a> {
    name: &'a str,
    most_s: f64,
    watch: &'a dyn Watch,
}

/// What is said of a file that no reader takes, with the reason where one had begun.
fn unknown(error: &symphonia::core::errors::Error) -> String {
    use symphonia::core::errors::Error::Unsupported;
    let what = "is not an audio file of a known format";
    match error {
        Unsupported(why) if why.contains("no suitable format reader") => what.into(),
        error => format!("{what} ({error})"),
    }
}

impl Reading<'_> {
    fn fault(&self, what: &str) -> Error {
        fault(self.name, what, CONVERT)
    }

    fn run(&self, mut source: Box<dyn MediaSource>) -> Result<Vec<f32>> {
        let edit = edits::edit_of(&mut *source);
        let (source, spent) = Guard::new(source);
        let stream = MediaSourceStream::new(Box::new(source), Default::default());
        let (format, meta) = (FormatOptions::default(), MetadataOptions::default());
        let mut reader = symphonia::default::get_probe()
            .probe(&Hint::new(), stream, format, meta)
            .map_err(|e| self.fault(&unknown(&e)))?;
        let track = reader
            .default_track(TrackType::Audio)
            .cloned()
            .ok_or_else(|| self.fault("has no audio in it"))?;
        let Some(CodecParameters::Audio(codec)) = &track.codec_params else {
            return Err(self.fault("has no audio of a known codec in it"));
        };
        let declared = declared_s(&*reader, &track, codec);
        if let Some(seconds) = declared
            && seconds > self.most_s + PADDING_S
        {
            return Err(self.too_long(Some(seconds)));
        }
        let mut decoder = self.decoder(codec)?;
        let mut sink = Sink {
            edit,
            spent,
            ..Sink::default()
        };
        self.pump(&mut *reader, track.id, &mut decoder, &mut sink)?;
        let given_s = sink.seconds();
        if let Some(seconds) = declared
            && given_s + SHORT_S + SHORT_SHARE * seconds < seconds
        {
            let what =
                format!("is cut off: it declares {seconds:.2} s and ends after {given_s:.2} s");
            return Err(fault(self.name, &what, "send the whole file"));
        }
        self.finished(sink)
    }

    fn too_long(&self, seconds: Option<f64>) -> Error {
        let found = seconds.map_or(String::new(), |s| format!(" ({s:.1} s)"));
        let what = format!(
            "is longer than the {} s that are allowed{found}",
            self.most_s
        );
        fault(self.name, &what, "send a shorter part of it")
    }

    fn decoder(&self, codec: &AudioCodecParameters) -> Result<Decoder> {
        if codec.codec == CODEC_ID_OPUS {
            let head = codec.extra_data.as_deref().unwrap_or_default();
            let opus = Opus::new(head).map_err(|why| self.fault(&format!("is refused: {why}")))?;
            return Ok(Decoder::Opus(Box::new(opus)));
        }
        let channels = codec.channels.as_ref().map_or(0, |c| c.count());
        let frames = codec.max_frames_per_packet.unwrap_or(0);
        if channels > MAX_CHANNELS || frames.saturating_mul(channels.max(1) as u64) > MAX_PACKET {
            let what = format!("claims {channels} channels and {frames} samples at once");
            return Err(self.fault(&what));
        }
        if let Some(rate) = codec.sample_rate {
            self.check_rate(rate)?;
        }
        let made = symphonia::default::get_codecs()
            .make_audio_decoder(codec, &AudioDecoderOptions::default())
            .map_err(|e| self.fault(&format!("cannot be decoded: {e}")))?;
        Ok(Decoder::Other(made))
    }

    fn check_rate(&self, rate: u32) -> Result<()> {
        match RATES.contains(&rate) {
            true => Ok(()),
            false => Err(self.fault(&format!("has {rate} samples per second"))),
        }
    }

    /// Decodes packet after packet into the sink.
    fn pump(
        &self,
        reader: &mut dyn FormatReader,
        track: u32,
        decoder: &mut Decoder,
        sink: &mut Sink,
    ) -> Result<()> {
        let (mut packets, mut bad, mut barren) = (0usize, 0usize, 0usize);
        let mut why = String::new();
        let mut samples = Vec::new();
        loop {
            if self.watch.cancelled() {
                return Err(Error::Cancelled);
            }
            let packet = match reader.next_packet() {
                Ok(Some(packet)) => packet,
                Ok(None) => break,
                // A file that ends within a packet; its declared length says whether it may.
                Err(Fault::IoError(e)) if e.kind() == ErrorKind::UnexpectedEof => break,
                Err(Fault::ResetRequired) => {
                    return Err(self.fault("holds several recordings one after another"));
                }
                Err(e) => {
                    let at = sink.seconds();
                    return Err(self.fault(&format!("is damaged after {at:.2} s: {e}")));
                }
            };
            barren += 1;
            if packet.track_id == track {
                packets += 1;
                match decoder.decode(&packet, &mut samples) {
                    Ok(spec) if !samples.is_empty() => {
                        barren = 0;
                        self.keep(sink, spec, &samples)?;
                    }
                    Ok(_) => {}
                    Err(e) => {
                        bad += 1;
                        why = e;
                    }
                }
            }
            if barren > BARREN {
                return Err(self.fault("brings packets without end and no audio"));
            }
        }
        if bad > BAD_FEW && bad > packets / BAD_SHARE {
            let what = format!("is damaged: {bad} of its {packets} packets do not decode ({why})");
            return Err(self.fault(&what));
        }
        Ok(())
    }

    fn keep(&self, sink: &mut Sink, spec: Spec, samples: &[f32]) -> Result<()> {
        if spec.channels == 0 {
            return Err(self.fault("has no channels"));
        }
        self.check_rate(spec.rate)?;
        if sink.spec.is_some_and(|s| s != spec) {
            return Err(self.fault("changes its sample rate or channels in the middle"));
        }
        if !samples.iter().all(|x| x.is_finite()) {
            return Err(self.fault("has samples that are not finite numbers"));
        }
        sink.push(spec, samples);
        if sink.out.len() as f64 > (self.most_s + PADDING_S) * f64::from(RATE) * CHANNELS as f64 {
            return Err(self.too_long(None));
        }
        Ok(())
    }

    fn finished(&self, mut sink: Sink) -> Result<Vec<f32>> {
        let Some(resampler) = sink.resampler.take() else {
            return Err(self.fault("has no sample in it"));
        };
        resampler.finish(&mut sink.out);
        if sink.out.is_empty() {
            return Err(self.fault("has no sample in it"));
        }
        // Sums of samples of absurd height can still leave the numbers.
        if !sink.out.iter().all(|x| x.is_finite()) {
            return Err(self.fault("has samples that are not finite numbers"));
        }
        sink.out.iter_mut().for_each(|x| *x = x.clamp(-1.0, 1.0));
        Ok(sink.out)
    }
}

/// Rate and channels of decoded samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Spec {
    rate: u32,
    channels: usize,
}

enum Decoder {
    Opus(Box<Opus>),
    Other(Box<dyn AudioDecoder>),
}

impl Decoder {
    /// Decodes a packet into `samples`, interleaved.
    fn decode(
        &mut self,
        packet: &Packet,
        samples: &mut Vec<f32>,
    ) -> std::result::Result<Spec, String> {
        match self {
            Decoder::Opus(opus) => {
                let trim = usize::try_from(packet.trim_end.get()).unwrap_or(usize::MAX);
                opus.decode(&packet.data, trim, samples)?;
                Ok(Spec {
                    rate: RATE,
                    channels: CHANNELS,
                })
            }
            Decoder::Other(decoder) => {
                samples.clear();
                let buffer = decoder.decode(packet).map_err(|e| e.to_string())?;
                buffer.copy_to_vec_interleaved(samples);
                let spec = buffer.spec();
                Ok(Spec {
                    rate: spec.rate(),
                    channels: spec.channels().count(),
                })
            }
        }
    }
}

/// Takes samples as they are decoded and makes of them what is asked for.
#[derive(Default)]
struct Sink {
    spec: Option<Spec>,
    resampler: Option<Resampler>,
    frames: Vec<[f32; CHANNELS]>,
    /// What is heard of all.
    edit: Option<Edit>,
    /// What the file has brought nothing for.
    spent: Spent,
    /// Sample times so far.
    given: u64,
    out: Vec<f32>,
}

impl Sink {
    fn push(&mut self, spec: Spec, samples: &[f32]) {
        self.spec = Some(spec);
        self.spent.clear();
        let (given, count) = (self.given, (samples.len() / spec.channels) as u64);
        self.given += count;
        let (skip, heard) = self.edit.map_or((0, u64::MAX), |e| e.samples(spec.rate));
        // Where what is heard starts and ends, counted from here.
        let within = |at: u64| at.saturating_sub(given).min(count) as usize * spec.channels;
        let heard = within(skip)..within(skip.saturating_add(heard));
        let frames = samples[heard].chunks_exact(spec.channels);
        self.frames.clear();
        self.frames.extend(frames.map(|f| match *f {
            [mono] => [mono, mono],
            [left, right, ..] => [left, right],
            [] => [0.0; CHANNELS],
        }));
        self.resampler
            .get_or_insert_with(|| Resampler::new(spec.rate, RATE))
            .push(&self.frames, &mut self.out);
    }

    fn seconds(&self) -> f64 {
        let rate = self.spec.map_or(1, |s| s.rate);
        self.given as f64 / f64::from(rate)
    }
}

/// Length that the header declares, where it is an exact one.
fn declared_s(
    reader: &dyn FormatReader,
    track: &Track,
    codec: &AudioCodecParameters,
) -> Option<f64> {
    // MPEG streams without a table are guessed at, and Ogg has no length but its end.
    let exact = ["wave", "flac", "aiff", "caf", "isomp4"];
    if !exact.contains(&reader.format_info().short_name) {
        return None;
    }
    let (time, ticks) = (track.time_base?, track.duration?.get());
    let channels = codec.channels.as_ref().map_or(1, |c| c.count().max(1)) as u64;
    let bits = u64::from(codec.bits_per_sample.unwrap_or(8));
    if ticks.saturating_mul(channels * bits.div_ceil(8)) >= UNKNOWN_BYTES {
        return None;
    }
    Some(ticks as f64 * f64::from(time.numer.get()) / f64::from(time.denom.get()))
}
