//! Several devices in one machine, over the same memory: what one has in its VRAM another gets, and no write is lost.

mod hands;
mod peers;
mod thrash;
