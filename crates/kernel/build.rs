//! Tells where the Rust half of runners is.

#[path = "../inside.rs"]
mod inside;

fn main() -> std::io::Result<()> {
    inside::tell("libpontoon_kface.so", "PONTOON_KFACE")
}
