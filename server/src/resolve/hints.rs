//! What a wish says about the song beside its mood: the language and whether anybody sings. The
//! names are those of upstream's `acestep/api/llm_generation_inputs.py`.

/// Names of each language, its code last. The first that is found counts.
const LANGUAGES: [&[&str]; 19] = [
    &["english", "en"],
    &["chinese", "中文", "mandarin", "zh"],
    &["japanese", "日本語", "ja"],
    &["korean", "한국어", "ko"],
    &["spanish", "español", "es"],
    &["french", "français", "fr"],
    &["german", "deutsch", "de"],
    &["italian", "italiano", "it"],
    &["portuguese", "português", "pt"],
    &["russian", "русский", "ru"],
    &["bengali", "bn"],
    &["hindi", "hi"],
    &["arabic", "ar"],
    &["thai", "th"],
    &["vietnamese", "vi"],
    &["indonesian", "id"],
    &["turkish", "tr"],
    &["dutch", "nl"],
    &["polish", "pl"],
];

/// The code of the language that a wish names.
pub fn language(wish: &str) -> Option<&'static str> {
    let wish = wish.to_lowercase();
    LANGUAGES.iter().find_map(|names| {
        let (code, names) = names.split_last()?;
        let named = names.iter().any(|name| has_word(&wish, name)) || has_code(&wish, code);
        named.then_some(*code)
    })
}

/// Whether a wish is for music without a voice.
pub fn is_instrumental(wish: &str) -> bool {
    let wish = wish.trim().to_lowercase();
    ["instrumental", "pure music", "pure instrument"]
        .iter()
        .any(|words| wish.contains(words))
        || wish == "solo"
        || wish.ends_with(" solo")
}

/// Whether a text has a word, with no letter or digit beside it.
fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        [before, after]
            .into_iter()
            .flatten()
            .all(|c| !c.is_alphanumeric() && c != '_')
    })
}

/// Two letters are also ordinary words (it, id, de, no): as a language they stand alone, in
/// brackets, or behind the word language. Upstream takes them anywhere.
fn has_code(text: &str, code: &str) -> bool {
    if text.trim() == code {
        return true;
    }
    let bracketed = [('(', ')'), ('[', ']')];
    if bracketed
        .iter()
        .any(|(open, close)| text.contains(&format!("{open}{code}{close}")))
    {
        return true;
    }
    let mut words = text
        .split(|c: char| c.is_whitespace() || ":=,.;!?".contains(c))
        .filter(|word| !word.is_empty());
    let mut before = "";
    words.any(|word| {
        let named = ["lang", "language"].contains(&before) && word == code;
        before = word;
        named
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_by_name_and_code() {
        for (wish, code) in [
            ("a soft Bengali love song for a quiet evening", Some("bn")),
            ("German rap", Some("de")),
            ("piano solo", None),
            ("make it calm and slow", None),
            ("no idea de luxe", None),
            ("一首中文歌", None),
            ("中文 pop", Some("zh")),
            ("it", Some("it")),
            ("opera (it)", Some("it")),
            ("opera, language: it", Some("it")),
            ("Germanic drums", None),
            ("canción en español", Some("es")),
            ("", None),
        ] {
            assert_eq!(language(wish), code, "{wish}");
        }
    }

    #[test]
    fn voices() {
        for wish in ["Piano solo", "SOLO", "instrumental jazz", "some pure music"] {
            assert!(is_instrumental(wish), "{wish}");
        }
        for wish in ["soloist", "a solo singer", "", "German rap"] {
            assert!(!is_instrumental(wish), "{wish}");
        }
    }
}
