//! The several spellings of one tensor's name. Everything is looked up by the name upstream's
//! modules give it; other packagings are translated to that.

/// The directories of the diffusers layout that together make one DiT checkpoint, with the
/// prefix their tensors have in the published file.
pub const DIFFUSERS_PARTS: [(&str, &str); 4] = [
    ("transformer", "decoder."),
    ("condition_encoder", "encoder."),
    ("audio_tokenizer", "tokenizer."),
    ("audio_token_detokenizer", "detokenizer."),
];

/// Names that stand at the top in the published file wherever another layout keeps them.
const TOP_LEVEL: [&str; 2] = ["null_condition_emb", "silence_latent"];

/// Name pieces of diffusers, and of weight normalisation as newer torch writes it, with
/// upstream's own.
const RENAMES: [(&str, &str); 10] = [
    (".to_q.", ".q_proj."),
    (".to_k.", ".k_proj."),
    (".to_v.", ".v_proj."),
    (".to_out.0.", ".o_proj."),
    (".norm_q.", ".q_norm."),
    (".norm_k.", ".k_norm."),
    (".proj_in_conv.", ".proj_in.1."),
    (".proj_out_conv.", ".proj_out.1."),
    (".parametrizations.weight.original0", ".weight_g"),
    (".parametrizations.weight.original1", ".weight_v"),
];

/// Upstream's name of a tensor found as `name` in a part whose names lack `prefix`.
pub fn canonical(prefix: &str, name: &str) -> String {
    let mut rest = name;
    for outer in ["diffusion_model.", "model."].iter().cycle().take(4) {
        rest = rest.strip_prefix(outer).unwrap_or(rest);
    }
    let mut out = if TOP_LEVEL.contains(&rest) {
        rest.to_string()
    } else {
        format!("{prefix}{rest}")
    };
    for (from, to) in RENAMES {
        if out.contains(from) {
            out = out.replace(from, to);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn spellings() {
        for (prefix, found, name) in [
            (
                "",
                "model.layers.0.mlp.up_proj.weight",
                "layers.0.mlp.up_proj.weight",
            ),
            (
                "",
                "layers.0.mlp.up_proj.weight",
                "layers.0.mlp.up_proj.weight",
            ),
            (
                "",
                "model.diffusion_model.decoder.norm_out.weight",
                "decoder.norm_out.weight",
            ),
            ("decoder.", "proj_in_conv.bias", "decoder.proj_in.1.bias"),
            (
                "decoder.",
                "layers.3.cross_attn.to_out.0.weight",
                "decoder.layers.3.cross_attn.o_proj.weight",
            ),
            ("encoder.", "null_condition_emb", "null_condition_emb"),
            (
                "tokenizer.",
                "attention_pooler.layers.0.self_attn.norm_k.weight",
                "tokenizer.attention_pooler.layers.0.self_attn.k_norm.weight",
            ),
            (
                "",
                "decoder.conv1.parametrizations.weight.original0",
                "decoder.conv1.weight_g",
            ),
        ] {
            assert_eq!(canonical(prefix, found), name);
        }
    }
}
