//! Developer verbs.
