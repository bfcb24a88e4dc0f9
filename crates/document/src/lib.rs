//! The notebook model: lossless .ipynb, edits, projection of outputs.
