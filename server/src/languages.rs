//! Codes that the lyrics' language may have.

pub use engine::text::LANGUAGES;
