#!/usr/bin/env python3
"""Makes the project's small copy of the golden data from the full set.

    tools/cut_goldens.py FULL_SET DESTINATION

The full set (tiny checkpoints with random weights and what the reference implementation computes
from them) is 44 MB; the copy under tests/goldens keeps what the tests need in under 16 MB. Whole
files are left out (capabilities without tests yet), and within files the tensors that only help
to locate a fault. What is kept is kept bit by bit. Needs nothing but Python.
"""

import hashlib
import json
import shutil
import struct
import sys
from fnmatch import fnmatch
from pathlib import Path

CHECKPOINT_FILES = ["config.json", "model.safetensors", "silence_latent.pt", "tokenizer.json",
                    "diffusion_pytorch_model.safetensors"]
CHECKPOINTS = ["acestep-v15-turbo", "acestep-v15-base", "acestep-v15-xl-turbo",
               "Qwen3-Embedding-0.6B", "acestep-5Hz-lm-0.6B", "vae"]
STAGES = """
    text_encoder guidance dcw rng timestep_sinusoid pack_sequences schedules.json
    tokenizer_cases.json vae/vae_decode_T10 vae/vae_weightnorm
    lm/lm_forward lm/lm_cfg_pair
    e2e/turbo_text2music e2e/base_text2music_apg e2e/xl_text2music
    turbo/lyric_encoder xl/lyric_encoder turbo/timbre_encoder xl/timbre_encoder
    {m}/condition_encoder turbo/audio_tokenizer base/audio_tokenizer
    {m}/dit_forward_t0.3 {m}/traj_conditions {m}/traj_inputs
    turbo/dit_forward_tr
    turbo/traj_ode turbo/traj_sde turbo/traj_heun turbo/traj_ode_dcw_default
    turbo/traj_ode_dcw_low turbo/traj_ode_clamp_ema turbo/traj_ode_shift1_fixednfe
    turbo/traj_ode_custom_timesteps turbo/traj_ode_5steps_shift2.5 turbo/traj_ode_retake
    base/traj_ode_nocfg base/traj_ode_apg base/traj_ode_apg_shift3
    base/traj_ode_adg_interval base/traj_heun_apg
    base/traj_ode_apg_dcw base/traj_custom_timesteps
    xl/traj_ode
    lm/fsm_tiny.json lm/sampling
"""
# Tensors that are left out: (files, tensors), shell patterns; tensors after "!" stay.
DROPPED = [
    # The encoder of the VAE has no tests yet.
    ("tiny/vae*/*", ["encoder.*"]),
    ("text_encoder*", ["layer*", "embed", "!layer0.out", "*_bf16"]),
    # Nothing is compared with these.
    ("*/*", ["*_bf16"]),
    ("*/lyric_encoder*", ["layer0.mlp_out", "layer0.self_attn_out", "embed"]),
    ("[bx]*/condition_encoder*", ["text_projected", "packed_item?_alone"]),
    ("dcw*", ["*_T32"]),
    ("guidance*", ["adg_norm", "adg_noclip", "adg_identical", "apg_nomomentum_eta",
                   "apg_momentum0", "apg_momentum1"]),
    ("vae/*", ["dec.*"]),
    ("e2e/*", ["context_latents", "encoder_hidden_states", "wav_head"]),
    ("e2e/x*", ["wav_tail"]),
    ("*/dit_forward*", ["cond_embed_out", "block*", "!block?.out"]),
    ("[bx]*/dit_forward*", ["block[12].out", "head_in"]),
    ("*/traj_conditions*", ["*", "!*.text2music"]),
    ("*/traj_inputs*", ["*", "!*noise"]),
    ("[bx]*/traj_inputs*", ["sde_noise", "retake_noise"]),
    ("*/traj_*", ["v", "v_cond", "v_uncond"]),
    # One trajectory keeps the state of every step.
    ("*/traj_*_*", ["x_in"]),
    ("turbo/traj_[hs]*", ["x_in"]),
    ("[bx]*/traj_*", ["x_in"]),
]


def drop(path, name):
    """Whether a tensor is left out of the copy."""
    for files, tensors in DROPPED:
        if not fnmatch(path, files):
            continue
        keep = [t[1:] for t in tensors if t.startswith("!")]
        if any(fnmatch(name, t) for t in tensors) and not any(fnmatch(name, t) for t in keep):
            return True
    return False


def read(path):
    raw = path.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    return json.loads(raw[8:8 + size]), memoryview(raw)[8 + size:]


def write(path, header, data):
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def cut(source, target, relative):
    """Copies a safetensors file without the tensors that `drop` names; returns the kept names."""
    header, data = read(source)
    meta = header.pop("__metadata__", None)
    kept, body = ({} if meta is None else {"__metadata__": meta}), bytearray()
    for name, info in sorted(header.items(), key=lambda i: i[1]["data_offsets"][0]):
        if drop(relative, name):
            continue
        begin, end = info["data_offsets"]
        kept[name] = dict(info, data_offsets=[len(body), len(body) + end - begin])
        body += data[begin:end]
    write(target, kept, bytes(body))
    return [n for n in kept if n != "__metadata__"]


def copy_checkpoints(full, out):
    """The checkpoint trees; a file that repeats byte by byte becomes a link to the first."""
    first = {}
    for checkpoint in CHECKPOINTS:
        (out / "tiny" / checkpoint).mkdir(parents=True, exist_ok=True)
        for name in CHECKPOINT_FILES:
            source, target = (d / "tiny" / checkpoint / name for d in (full, out))
            if not source.exists():
                continue
            target.unlink(missing_ok=True)
            same = first.setdefault(hashlib.sha256(source.read_bytes()).digest(), checkpoint)
            if same != checkpoint:
                target.symlink_to(f"../{same}/{name}")
            elif name.endswith(".safetensors"):
                cut(source, target, f"tiny/{checkpoint}/{name}")
            else:
                shutil.copyfile(source, target)


def main(full, out):
    copy_checkpoints(full, out)
    manifest = json.loads((full / "stages/MANIFEST.json").read_text())
    kept = {}
    for pattern in STAGES.split():
        for model in ("turbo", "base", "xl") if "{m}" in pattern else ("",):
            name = pattern.replace("{m}", model)
            name = name if name.endswith(".json") else name + ".safetensors"
            source, target = (d / "stages" / name for d in (full, out))
            target.parent.mkdir(parents=True, exist_ok=True)
            entry = dict(manifest[name])
            if name == "tokenizer_cases.json":
                # The published vocabulary is not in the copy.
                cases = json.loads(source.read_text())
                tiny = {name: cases[name] for name in ("tiny_text_encoder", "tiny_lm")}
                text = json.dumps(tiny, ensure_ascii=False)
                target.write_text(text.replace('{"text"', '\n{"text"') + "\n")
            elif name.endswith(".json"):
                shutil.copyfile(source, target)
            else:
                names = cut(source, target, name)
                entry["tensors"] = {n: {k: entry["tensors"][n][k] for k in ("dtype", "shape")}
                                    for n in names}
            raw = target.read_bytes()
            entry.update(bytes=len(raw), sha256=hashlib.sha256(raw).hexdigest())
            kept[name] = entry
    text = json.dumps(kept, separators=(",", ":"), sort_keys=True)
    (out / "stages/MANIFEST.json").write_text(text.replace('},"', '},\n"') + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
