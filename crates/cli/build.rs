//! Tells where the preload library is.

#[path = "../inside.rs"]
mod inside;

fn main() -> std::io::Result<()> {
    inside::tell("libpontoon_shim.so", "PONTOON_LIBRARY")
}
