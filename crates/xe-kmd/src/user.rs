//! The program's memory, as an ioctl reads and writes it.
//!
//! It may be in VRAM: reading it then migrates it back, on this very thread. So nothing here is called with a
//! lock of the driver held.
//!
//! Upstream: `copy_from_user`, `copy_to_user`.

use units::HostVa;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::errno::Errno;
use crate::shared::Shared;

impl Shared {
    /// Reads a struct. `EFAULT` where there is no memory.
    pub(crate) fn copy_in<T: FromBytes + IntoBytes>(&self, from: u64) -> Result<T, Errno> {
        let mut value = T::new_zeroed();
        self.copy_in_bytes(HostVa(from), value.as_mut_bytes())?;
        Ok(value)
    }

    /// Reads `count` structs that follow one another.
    pub(crate) fn copy_in_vec<T: FromBytes + IntoBytes>(&self, from: u64, count: usize) -> Result<Vec<T>, Errno> {
        (0..count).map(|n| self.copy_in(from.wrapping_add((n * size_of::<T>()) as u64))).collect()
    }

    /// Writes a struct.
    pub(crate) fn copy_out<T: IntoBytes + Immutable + ?Sized>(&self, to: u64, value: &T) -> Result<(), Errno> {
        self.memory.copy_to_user(HostVa(to), value.as_bytes()).map_err(|_| Errno::EFAULT)
    }

    /// Reads bytes.
    pub(crate) fn copy_in_bytes(&self, from: HostVa, buf: &mut [u8]) -> Result<(), Errno> {
        self.memory.copy_from_user(from, buf).map_err(|_| Errno::EFAULT)
    }
}
