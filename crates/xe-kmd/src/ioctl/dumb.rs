//! MODE_CREATE_DUMB, MODE_MAP_DUMB, MODE_DESTROY_DUMB: images for the CPU to draw, which every device has. Without a display
//! nothing shows them.
//!
//! Upstream: `drm_dumb_buffers.c`, `xe_bo_dumb_create`, `drm_gem_ttm_dumb_map_offset`.

use units::SZ_4K;
use xe_spec::platform::Platform;
use xe_uapi::drm::{CreateDumb, DestroyDumb, GemClose, MapDumb};
use xe_uapi::gem::CACHING_WC;

use super::core::reachable;
use super::{Reply, gem};
use crate::bo::{Bo, BoConfig};
use crate::errno::Errno;
use crate::file::File;

/// Lines start at multiples of so many bytes.
const PITCH_ALIGN: u64 = 64;
/// The VRAM of the first tile, or system memory where there is none.
const fn placement(platform: &Platform) -> u32 {
    if platform.has_vram() { 2 } else { 1 }
}

/// MODE_CREATE_DUMB. `EINVAL`: a line, or all of them, have no 32-bit number of bytes.
pub(super) fn create(file: &File, args: &mut CreateDumb) -> Reply {
    reachable(file)?;
    let lines = u64::from(args.height);
    let bytes =
        u64::from(args.width).checked_mul(u64::from(args.bpp).div_ceil(8)).and_then(|line| line.checked_mul(lines));
    let fits = |bytes: u64, align| bytes.checked_next_multiple_of(align).filter(|bytes| (1..1 << 32).contains(bytes));
    bytes.and_then(|bytes| fits(bytes, SZ_4K)).filter(|_| args.bpp <= u32::MAX - 8).ok_or(Errno::EINVAL)?;
    (args.handle, args.pitch, args.size) = (0, 0, 0);

    let pitch = fits(bytes_of(args.width, args.bpp), PITCH_ALIGN).ok_or(Errno::EINVAL)?;
    let page = file.shared.platform().min_vram_page();
    let size = Some(pitch * lines).filter(|size| *size < 1 << 32).and_then(|size| fits(size, page));
    (args.pitch, args.size) = (pitch as u32, size.ok_or(Errno::EINVAL)?);
    let config = BoConfig {
        size: args.size,
        placement: placement(file.shared.platform()),
        caching: CACHING_WC,
        vm: None,
        defer: false,
        no_compression: false,
    };
    args.handle = file.add_bo(&Bo::create(&file.shared, config)?)?;
    Ok(0)
}

/// Bytes of so many pixels: of less than a byte there are several in one, where a format is known.
fn bytes_of(pixels: u32, bpp: u32) -> u64 {
    match bpp {
        1 | 2 | 4 => u64::from(pixels).div_ceil(8 / u64::from(bpp)),
        _ => u64::from(pixels) * u64::from(bpp).div_ceil(8),
    }
}

/// MODE_MAP_DUMB, of any BO.
pub(super) fn map(file: &File, args: &mut MapDumb) -> Reply {
    args.offset = 0;
    reachable(file)?;
    args.offset = file.bo(args.handle).ok_or(Errno::ENOENT)?.offset();
    Ok(0)
}

/// MODE_DESTROY_DUMB: GEM_CLOSE.
pub(super) fn destroy(file: &File, args: &mut DestroyDumb) -> Reply {
    gem::close(reachable(file)?, &mut GemClose { handle: args.handle, pad: 0 })
}
