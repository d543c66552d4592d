//! One sequence on its way through the grammar.

use super::spans::{Allowed, Spans};
use super::tables::{Grammar, is_indented};
use super::trace::{Event, PREVIEW, Trace};
use super::tree::Step;
use super::{Field, Phase, Rules, Settings, State};
use crate::error::{Error, Result};
use crate::text::codes::code_count;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Tokens after which a caption has to end its line.
const CAPTION_TOKENS: usize = 512;
/// Codes between two of their counts in the debug log.
const COUNTED: usize = 50;

/// The state of one sequence. Per token: [`Machine::forced`], or else logits and
/// [`Machine::allowed`]; then [`Machine::advance`] with the token that was chosen.
pub struct Machine {
    grammar: Arc<Grammar>,
    settings: Settings,
    target: Option<usize>,
    state: State,
    /// Text and ids of the values that are given.
    given: BTreeMap<Field, (String, Vec<u32>)>,
    /// Ids of the given value that is being written; empty where the model writes.
    injected: Vec<u32>,
    /// Tokens written of a fixed text or of a given value.
    written: usize,
    /// Position in the tree of the field.
    node: usize,
    caption: Caption,
    codes: usize,
    ended: bool,
    trace: Trace,
}

/// Progress of a caption.
#[derive(Debug, Clone, Default)]
struct Caption {
    tokens: usize,
    /// The last token ended a line.
    line_ended: bool,
    /// Upstream's search for the colon of the next field: what stands before it so far.
    name: Option<String>,
}

impl Machine {
    /// A machine for a completion of `prompt`. In [`Phase::Codes`] a prompt without `</think>`
    /// gets its reasoning first.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the tokenizer's rules fail on a value of the user.
    pub fn new(grammar: Arc<Grammar>, settings: Settings, prompt: &[u32]) -> Result<Self> {
        let reasoned = prompt.contains(&grammar.vocabulary().control().think_end);
        let state = match settings.phase {
            _ if !settings.constrained => State::Off,
            Phase::Codes if reasoned => State::Codes,
            _ => State::ThinkTag,
        };
        let given = given(&grammar, &settings)?;
        Ok(Machine {
            grammar,
            target: settings.target_s.filter(|s| *s > 0.0).map(code_count),
            settings,
            state,
            given,
            injected: Vec::new(),
            written: 0,
            node: 0,
            caption: Caption::default(),
            codes: 0,
            ended: false,
            trace: Trace::default(),
        })
    }

    /// The grammar it walks.
    pub fn grammar(&self) -> &Grammar {
        &self.grammar
    }

    /// Where the sequence is.
    pub fn state(&self) -> State {
        self.state
    }

    /// Tokens written in the code state, the end included.
    pub fn codes(&self) -> usize {
        self.codes
    }

    /// Whether nothing more is to come: the completion ended, or all codes are there and only the
    /// end could follow.
    pub fn finished(&self) -> bool {
        self.ended || self.codes_complete()
    }

    /// Takes the recorded events.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.trace).into_events()
    }

    fn codes_complete(&self) -> bool {
        self.state == State::Codes && self.target.is_some_and(|target| self.codes >= target)
    }

    /// The next token where there is no choice and logits would change nothing. Such tokens can
    /// be collected and fed to the model in one piece.
    pub fn forced(&self) -> Option<u32> {
        if self.ends_here() {
            return Some(self.grammar.vocabulary().control().turn_end);
        }
        if let Some(id) = self.fixed().get(self.written) {
            return Some(*id);
        }
        match self.state {
            State::Value(Field::Caption) => {
                let caption = &self.caption;
                let full = caption.tokens >= CAPTION_TOKENS;
                (full && !caption.line_ended && caption.name.is_none())
                    .then(|| self.grammar.newline())
            }
            State::Value(field) => match self.grammar.tree(field)?.allowed(self.node) {
                [id] => Some(*id),
                _ => None,
            },
            State::Codes if self.codes_complete() => {
                Some(self.grammar.vocabulary().control().turn_end)
            }
            _ => None,
        }
    }

    /// The tokens that may come next.
    ///
    /// `logits` are those of the whole vocabulary before anything but guidance was done to them.
    /// They are looked at in two places: the language is the model's first choice whatever the
    /// temperature, and behind a line end of the caption its first choice says whether the
    /// caption goes on. Everywhere else they may be empty.
    pub fn allowed(&mut self, logits: &[f32]) -> Allowed<'_> {
        if self.state == State::Value(Field::Caption) && self.injected.is_empty() {
            self.end_caption(logits);
        }
        // Every code has the same set.
        if self.settings.debug && (self.state != State::Codes || self.codes == 0) {
            self.record_set(logits);
        }
        self.set(logits)
    }

    /// The ids that [`Machine::allowed`] and the choice that follows look at: a head need not
    /// compute other logits. One of two ranges, so that few programs serve them all: everything,
    /// or what stands before the audio codes.
    pub fn looked_at(&self) -> Range<u32> {
        let vocabulary = self.grammar.vocabulary();
        let (size, text) = (vocabulary.size(), vocabulary.codes().start);
        let rules = self.settings.rules;
        let last = |spans: &Spans| spans.ranges().last().map_or(0, |r| r.end);
        let end = match self.state {
            // The first choice of all behind a line end.
            State::Value(Field::Caption)
                if self.caption.line_ended || self.caption.name.is_some() =>
            {
                size
            }
            State::Value(Field::Caption) => last(self.grammar.caption(rules, false)),
            // Values are text.
            State::Value(_) => vocabulary.plain(),
            State::Completed => last(self.grammar.lyrics(rules)),
            _ => size,
        };
        0..if end <= text { text } else { size }
    }

    fn set(&self, logits: &[f32]) -> Allowed<'_> {
        if let Some(id) = self.forced() {
            return Allowed::Forced(id);
        }
        let size = self.grammar.vocabulary().size();
        match self.state {
            State::Value(Field::Caption) if self.caption.name.is_some() => Allowed::All { size },
            // At the limit the line was not ended by the model: what follows may only end it.
            State::Value(Field::Caption) if self.caption.tokens >= CAPTION_TOKENS => {
                Allowed::Forced(self.grammar.newline())
            }
            State::Value(Field::Caption) => Allowed::Spans(
                self.grammar
                    .caption(self.settings.rules, self.caption.line_ended),
            ),
            State::Value(field) => {
                let tree = self.grammar.tree(field);
                let ids = tree.map_or(&[][..], |tree| tree.allowed(self.node));
                if field == Field::Language && self.node == 0 {
                    return Allowed::Forced(Allowed::Few(ids).best(logits));
                }
                Allowed::Few(ids)
            }
            State::Codes => Allowed::Codes {
                codes: self.grammar.vocabulary().legal_codes(),
                end: match self.target {
                    None => Some(self.grammar.vocabulary().control().turn_end),
                    Some(_) => None,
                },
            },
            State::Completed => Allowed::Spans(self.grammar.lyrics(self.settings.rules)),
            _ => Allowed::All { size },
        }
    }

    /// Goes on with the token that was chosen.
    ///
    /// # Errors
    /// [`Error::Bug`] when the token was not legal.
    pub fn advance(&mut self, token: u32) -> Result<()> {
        let illegal = |m: &Machine| {
            Error::Bug(format!(
                "token {token} ({:?}) is not legal in {}",
                m.grammar.vocabulary().text(token),
                m.state
            ))
        };
        if self.ends_here() {
            if !self.grammar.vocabulary().ends_completion(token) {
                return Err(illegal(self));
            }
            self.enter(State::Completed);
            self.ended = true;
            return Ok(());
        }
        if let Some(expected) = self.fixed().get(self.written) {
            if *expected != token {
                return Err(illegal(self));
            }
            self.written += 1;
            if self.written == self.fixed().len() {
                self.enter(self.next());
            }
            return Ok(());
        }
        match self.state {
            State::Value(Field::Caption) => self.advance_caption(token),
            State::Value(field) => {
                let step = self
                    .grammar
                    .tree(field)
                    .and_then(|t| t.step(self.node, token));
                match step.ok_or_else(|| illegal(self))? {
                    Step::Node(node) => self.node = node,
                    Step::Complete => self.enter(self.next()),
                }
            }
            State::Codes => self.advance_code(token),
            _ => {}
        }
        self.ended |= self.grammar.vocabulary().ends_completion(token);
        Ok(())
    }

    fn advance_code(&mut self, token: u32) {
        self.codes += 1;
        let is_code = !self.grammar.vocabulary().ends_completion(token);
        let counts = self.codes.is_multiple_of(COUNTED) || self.target == Some(self.codes);
        if self.settings.debug && is_code && counts {
            self.trace.push(Event::Code {
                count: self.codes,
                target: self.target,
            });
        }
    }

    /// Whether the completion ends instead of closing its reasoning.
    fn ends_here(&self) -> bool {
        self.state == State::ThinkEndTag && self.settings.stop_at_reasoning
    }

    /// The ids being written where there is no choice: a given value or the state's own text.
    fn fixed(&self) -> &[u32] {
        if self.injected.is_empty() {
            self.grammar.fixed(self.state)
        } else {
            &self.injected
        }
    }

    /// What follows the state when it is complete.
    fn next(&self) -> State {
        match self.state {
            State::ThinkTag => State::NewlineAfterThink,
            State::NewlineAfterThink => State::Name(Field::Bpm),
            State::Name(field) => State::Value(field),
            State::Value(field) => {
                let skipped = |f: &Field| match f {
                    Field::Caption => self.settings.skip_caption,
                    Field::Language => self.settings.skip_language,
                    _ => false,
                };
                let mut later = Field::ALL.into_iter().filter(|f| *f > field);
                later
                    .find(|f| !skipped(f))
                    .map_or(State::ThinkEndTag, State::Name)
            }
            State::ThinkEndTag => match self.settings.phase {
                Phase::Understand => State::Completed,
                Phase::Cot | Phase::Codes => State::Codes,
            },
            state @ (State::Codes | State::Completed | State::Off) => state,
        }
    }

    fn enter(&mut self, state: State) {
        if self.settings.debug {
            self.trace.push(Event::Entered {
                from: self.state,
                to: state,
            });
        }
        self.state = state;
        self.written = 0;
        self.node = 0;
        self.caption = Caption::default();
        self.injected.clear();
        if let State::Value(field) = state
            && let Some((text, ids)) = self.given.get(&field)
        {
            self.injected.clone_from(ids);
            if self.settings.debug {
                let text = text.clone();
                self.trace.push(Event::Injected { state, text });
            }
        }
    }

    /// Behind a line end of the caption: the caption goes on if the model's first choice is
    /// indented.
    fn end_caption(&mut self, logits: &[f32]) {
        if !self.caption.line_ended || self.caption.name.is_some() {
            return;
        }
        let vocabulary = self.grammar.vocabulary();
        let size = vocabulary.size();
        let first_choice = Allowed::All { size }.best(logits);
        if vocabulary
            .plain_bytes(first_choice)
            .is_some_and(is_indented)
        {
            return;
        }
        match self.settings.rules {
            Rules::Upstream => {
                self.caption.line_ended = false;
                self.caption.name = Some(String::new());
            }
            Rules::Strict => self.enter(self.next()),
        }
    }

    fn advance_caption(&mut self, token: u32) {
        let text = self.grammar.vocabulary().text(token);
        if let Some(name) = &mut self.caption.name {
            name.push_str(&text);
            if text.contains(':') {
                let name = name.trim().trim_end_matches(':').to_lowercase();
                let later = &Field::ALL[Field::Duration as usize..];
                let jump = later.iter().find(|f| f.name() == name);
                self.enter(jump.map_or(self.next(), |f| State::Value(*f)));
            }
            return;
        }
        self.caption.tokens += 1;
        self.caption.line_ended = text.contains('\n');
        let full = self.caption.tokens >= CAPTION_TOKENS;
        if self.settings.rules == Rules::Strict && self.caption.line_ended && full {
            self.enter(self.next());
        }
    }

    fn record_set(&mut self, logits: &[f32]) {
        let set = self.set(logits);
        let vocabulary = self.grammar.vocabulary();
        let mut preview = Vec::new();
        set.for_each_range(|ids| {
            let left = PREVIEW - preview.len();
            preview.extend(ids.take(left).map(|id| vocabulary.text(id)));
        });
        let event = Event::Masked {
            state: self.state,
            legal: set.count(),
            preview,
        };
        self.trace.push(event);
    }
}

/// Texts and ids of the values the model does not choose, each on one line.
fn given(grammar: &Grammar, settings: &Settings) -> Result<BTreeMap<Field, (String, Vec<u32>)>> {
    let mut given = BTreeMap::new();
    let mut insert = |field: Field, text: String| -> Result<()> {
        let ids = grammar.tokenizer().encode_text(&text)?;
        given.insert(field, (text, ids));
        Ok(())
    };
    if let Some(seconds) = settings.target_s.filter(|s| *s > 0.0) {
        // Upstream leaves out the space here.
        let space = match settings.rules {
            Rules::Strict => " ",
            Rules::Upstream => "",
        };
        insert(Field::Duration, format!("{space}{}\n", seconds as u32))?;
    }
    for (field, value) in &settings.user {
        let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
        if !value.is_empty() {
            insert(*field, format!(" {value}\n"))?;
        }
    }
    Ok(given)
}
