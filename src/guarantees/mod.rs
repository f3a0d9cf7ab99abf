//! Guarantees: what can be promised of a sampler before it runs, and what a run shows afterwards. Beside the building:
//! it looks at processes, laws, scores and samplers, and nothing there looks back.
