//! Score models from ONNX files, by a runtime in pure Rust. Feature `onnx`.
