#!/usr/bin/env python3
"""One guided token of the language model: `acestep bench` beside PyTorch, in turns.

    tools/peer_lm.py --acestep target/release/acestep --checkpoints DIR [--rounds 3] [--json]

The peer is `Qwen3ForCausalLM` of the public transformers package with the published sizes of the
0.6B planner (tied head over 217,204 tokens), random weights, bf16, two rows for guidance and
their cache of 600 tokens. It is timed twice: as it is, with logits of the whole vocabulary, and,
to be kind to it, with the head cut to the 64,000 legal audio codes, which is all that ours
computes. DIR is made by `acestep checkpoint random --like lm-0.6b --out DIR`. Every round runs
the peer and then ours; medians over all rounds count. Wall and processor time are both given,
and the load of the machine before each turn: on a busy machine only the processor time means
anything. Needs torch and transformers.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import warnings

VOCABULARY = 217_204
FIRST_CODE, CODES = 151_669, 64_000


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--acestep", required=True, help="the program")
    parser.add_argument("--checkpoints", required=True, help="directory with the random 0.6B model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=600, help="tokens before the one measured")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=9, help="timed calls per round")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def load():
    return os.getloadavg()[0]


class Peer:
    """Two rows of transformers' model with a filled cache."""

    def __init__(self, threads, tokens):
        import torch
        import transformers

        # Newer versions rename an argument and still take the old name.
        warnings.filterwarnings("ignore", category=FutureWarning)

        torch.set_num_threads(threads)
        torch.manual_seed(0)
        self.torch, self.tokens = torch, tokens
        self.versions = {"torch": torch.__version__, "transformers": transformers.__version__}
        config = transformers.Qwen3Config(
            vocab_size=VOCABULARY, hidden_size=1024, intermediate_size=3072, num_hidden_layers=28,
            num_attention_heads=16, num_key_value_heads=8, head_dim=128, rms_norm_eps=1e-6,
            max_position_embeddings=40_960, tie_word_embeddings=True)
        torch.set_default_dtype(torch.bfloat16)
        self.model = transformers.Qwen3ForCausalLM(config).eval()
        self.cut = self.model.lm_head.weight[FIRST_CODE:FIRST_CODE + CODES]
        self.cache = transformers.DynamicCache()
        ids = torch.arange(tokens).mul(7919).remainder(VOCABULARY).expand(2, tokens)
        with torch.inference_mode():
            self.model.model(ids, past_key_values=self.cache, use_cache=True)
        self.next = torch.zeros(2, 1, dtype=torch.long)

    def step(self, cut):
        if not cut:
            return self.model(self.next, past_key_values=self.cache, use_cache=True).logits
        out = self.model.model(self.next, past_key_values=self.cache, use_cache=True)
        return self.torch.nn.functional.linear(out.last_hidden_state, self.cut)

    def times(self, cut, repeat):
        """Seconds of every call, and processor seconds of one."""
        wall, busy = [], 0.0
        with self.torch.inference_mode():
            for call in range(repeat + 1):
                start, before = time.perf_counter(), time.process_time()
                self.step(cut)
                if call > 0:
                    wall.append(time.perf_counter() - start)
                    busy += time.process_time() - before
                self.cache.crop(-1)
        return wall, busy / repeat


def ours(a):
    command = [a.acestep, "bench", "--checkpoints", a.checkpoints, "--stages", "lm", "--dtype",
               "bf16", "--backend", "cpu", "--threads", str(a.threads), "--lm-len", str(a.tokens),
               "--repeat", str(a.repeat), "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def main():
    a = arguments()
    peer = Peer(a.threads, a.tokens)
    rounds = []
    for _ in range(a.rounds):
        turn = {"load_peer": load()}
        for name, cut in [("full", False), ("cut", True)]:
            wall, busy = peer.times(cut, a.repeat)
            turn[name] = {"seconds": statistics.median(wall), "cpu_seconds": busy}
        turn["load_ours"] = load()
        report = ours(a)
        turn["ours"] = report
        rounds.append(turn)
        print(f"round {len(rounds)} of {a.rounds}, load {turn['load_peer']:.1f} and "
              f"{turn['load_ours']:.1f}", file=sys.stderr)

    def token(turn):
        return next(r for r in turn["ours"]["rows"] if r["component"] == "lm token")

    def middle(values):
        return statistics.median(list(values))

    result = {
        "ours_s": middle(token(t)["seconds"] for t in rounds),
        "ours_cpu_s": middle(token(t)["cpu_ms"] / 1e3 for t in rounds),
        "read_gbs": middle(t["ours"]["read_gbs"] for t in rounds),
        "read_share": middle(token(t)["read_share"] for t in rounds),
    }
    for name in ["full", "cut"]:
        result[f"peer_{name}_s"] = middle(t[name]["seconds"] for t in rounds)
        result[f"peer_{name}_cpu_s"] = middle(t[name]["cpu_seconds"] for t in rounds)
        # Of each round, so that a change of the machine between rounds cancels.
        result[f"ratio_{name}"] = middle(token(t)["seconds"] / t[name]["seconds"] for t in rounds)
        result[f"ratio_{name}_cpu"] = middle(
            token(t)["cpu_ms"] / 1e3 / t[name]["cpu_seconds"] for t in rounds)
    if a.json:
        print(json.dumps({"versions": peer.versions, "medians": result, "rounds": rounds}))
        return
    print(f"{a.threads} threads, {a.tokens} tokens before, 2 rows, bf16; {peer.versions}")
    print(f"ours          {result['ours_s']:.4f} s, {result['ours_cpu_s']:.4f} processor s: "
          f"{1 / result['ours_s']:.1f} tokens/s, {100 * result['read_share']:.0f} % of a plain read "
          f"at {result['read_gbs']:.1f} GB/s")
    for name, what in [("full", "whole head"), ("cut", "code rows  ")]:
        print(f"peer {what} {result[f'peer_{name}_s']:.4f} s, "
              f"{result[f'peer_{name}_cpu_s']:.4f} processor s: ours takes "
              f"{result[f'ratio_{name}']:.2f} of it, {result[f'ratio_{name}_cpu']:.2f} of its "
              "processor time")


if __name__ == "__main__":
    main()
