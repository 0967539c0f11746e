//! The DRM core's ioctls, by the primary node and by the render node.

use super::*;
use crate::File;
use std::sync::Arc;

const ARGS: u64 = USER + 0x4000;
const EACCES: Result<u32, Errno> = err(Errno::EACCES);
const EOPNOTSUPP: Result<u32, Errno> = err(Errno::EOPNOTSUPP);

/// Numbers that render nodes do not have.
fn primary_only() -> Vec<u8> {
    let old = [0x01, 0x02, 0x05, 0x06, 0x07, 0x0a, 0x0b, 0x0d, 0x1e, 0x1f, 0x27, 0x28, 0x2c, 0x3f];
    let displays = (0x3a..=0x3c).chain(0xa0..=0xbe).chain(0xc6..=0xc9).chain([0xce, 0xd0]);
    old.into_iter().chain(0x10..=0x13).chain(displays).collect()
}

#[test]
fn a_render_node_has_no_ioctls_of_the_primary() {
    let rig = Rig::new();
    let render = rig.device.open_render();
    for number in 0..=255u8 {
        let reply = render.ioctl(nr::request(3, number, 16), HostVa(ARGS));
        assert_eq!(reply == EACCES, primary_only().contains(&number), "{number:#x}: {reply:?}");
    }
}

#[test]
fn a_device_without_a_display_says_so() {
    let rig = Rig::new();
    let cap = |capability| {
        let mut args = drm::GetCap { capability, value: 9 };
        rig.ioctl(nr::GET_CAP, &mut args).map(|_| args.value).map_err(|errno| (errno, args.value))
    };
    assert_eq!([5, 6, 0x13, 0x14].map(cap), [Ok(3), Ok(1), Ok(1), Ok(1)]);
    assert_eq!([1, 8, 0x10, 0x77].map(cap), [Err((Errno::EOPNOTSUPP, 0)); 4]);
    assert_eq!(rig.ioctl(nr::SET_CLIENT_CAP, &mut drm::GetCap { capability: 2, value: 1 }), EOPNOTSUPP);
    let ask = |number| rig.file.ioctl(nr::request(3, number, 64), HostVa(ARGS));
    assert_eq!([0xa0, 0xa2, 0xb5, 0xbc, 0xc6, 0x3a].map(ask), [EOPNOTSUPP; 6]);
    assert_eq!((ask(0x12), ask(0x03)), (EINVAL, EINVAL));
    assert_eq!(rig.file.ioctl(nr::request(3, 0xa0, 64), HostVa(8)), err(Errno::EFAULT));
}

/// Sizes as the kernel rounds them: a line to 64 bytes, all of it to a page of VRAM.
#[test]
fn a_dumb_buffer_is_a_bo_of_the_first_tile() {
    let rig = Rig::new();
    let create = |width, height, bpp| {
        let mut args = drm::CreateDumb { width, height, bpp, handle: 9, pitch: 9, size: 9, ..Default::default() };
        let reply = rig.ioctl(nr::MODE_CREATE_DUMB, &mut args);
        (reply, args.handle, args.pitch, args.size)
    };
    assert_eq!(create(100, 100, 32), (OK, 1, 448, SZ_64K));
    assert_eq!([create(9, 1, 1), create(65, 1024, 4), create(33, 1, 12)].map(|made| made.2), [64, 64, 128]);
    assert_eq!(create(17, 1, 30), (OK, 5, 128, SZ_64K), "a pixel has whole bytes");
    assert_eq!(rig.device.vram_used(TileId(0)), 5 * SZ_64K);
    for (width, height, bpp) in
        [(0, 1, 8), (1, 0, 8), (1, 1, 0), (1 << 31, 1, 16), (1 << 16, 1 << 16, 8), (1, 1, !0), (6_700_417, !0, 5128)]
    {
        assert_eq!(create(width, height, bpp), (EINVAL, 9, 9, 9), "{width} {height} {bpp}");
    }
    assert_eq!(create(1, 1 << 26, 8), (EINVAL, 0, 0, 0), "too large once a line is rounded");
    let map = |handle| {
        let mut args = drm::MapDumb { handle, ..Default::default() };
        rig.ioctl(nr::MODE_MAP_DUMB, &mut args).map(|_| args.offset)
    };
    assert_eq!((map(1), map(99)), (Ok(4 * SZ_1G), Err(Errno::ENOENT)));
    let destroy = |handle| rig.ioctl(nr::MODE_DESTROY_DUMB, &mut drm::DestroyDumb { handle });
    assert_eq!((destroy(1), destroy(1)), (OK, EINVAL));
}

#[test]
fn one_file_of_a_device_is_master() {
    let rig = Rig::new();
    let other = rig.device.open();
    let on = |file: &Arc<File>, request| file.ioctl(request, HostVa(ARGS));
    let [set, drop] = [nr::SET_MASTER, nr::DROP_MASTER];
    assert_eq!((on(&rig.file, set), on(&other, set), on(&other, drop)), (OK, EACCES, EACCES));
    rig.device.ask_for_admin(|| true);
    assert_eq!((on(&other, set), on(&other, drop)), (err(Errno::EBUSY), EINVAL));
    assert_eq!(other.ioctl(nr::request(3, 0xa2, 64), HostVa(ARGS)), EACCES, "what a master only may");
    assert_eq!((on(&rig.file, drop), on(&rig.file, drop), on(&other, set)), (OK, EINVAL, OK));
    assert_eq!(on(&rig.file, set), err(Errno::EBUSY));
    other.close();
    rig.device.ask_for_admin(|| false);
    assert_eq!(on(&rig.file, set), OK, "it was that before");
}

#[test]
fn versions_are_told_to_the_master() {
    let rig = Rig::new();
    let set = |di_major, di_minor, dd_major, dd_minor| {
        let mut args = drm::SetVersion { di_major, di_minor, dd_major, dd_minor };
        (rig.ioctl(nr::SET_VERSION, &mut args), [args.di_major, args.di_minor, args.dd_major, args.dd_minor])
    };
    let told = [1, 4, 1, 1];
    assert_eq!([set(1, 4, -1, -1), set(-1, 0, 1, 1), set(1, 0, 1, 0)], [(OK, told); 3]);
    assert_eq!([set(1, 5, -1, -1), set(2, 0, -1, -1), set(1, -1, 1, 1), set(1, 4, 1, 2)], [(EINVAL, told); 4]);
    assert_eq!(rig.device.open().ioctl(nr::SET_VERSION, HostVa(ARGS)), EACCES);
    let mut unique = drm::Unique { length: 7, unique: USER };
    assert_eq!((rig.ioctl(nr::GET_UNIQUE, &mut unique), unique.length), (OK, 0));
    let mut magic = drm::Magic::default();
    assert_eq!(rig.ioctl(nr::GET_MAGIC, &mut magic), OK);
    assert_ne!(magic.magic, 0);
}

#[test]
fn a_program_names_its_file() {
    let rig = Rig::new();
    let name = |text: &[u8]| {
        rig.put(USER, text);
        let mut args = drm::SetClientName { name_len: text.len() as u64, name: USER };
        (rig.ioctl(nr::SET_CLIENT_NAME, &mut args), rig.file.usage().name)
    };
    assert_eq!((rig.file.usage().name, name(b"a-name")), (None, (OK, Some("a-name".into()))));
    for bad in [&b"two words"[..], b"nul\0", b"\xff", &[b'x'; 65]] {
        assert_eq!(name(bad), (EINVAL, Some("a-name".into())));
    }
    assert_eq!((name(&[b'x'; 64]).0, name(b"")), (OK, (OK, None)));
    let mut nowhere = drm::SetClientName { name_len: 1, name: 8 };
    assert_eq!(rig.ioctl(nr::SET_CLIENT_NAME, &mut nowhere), err(Errno::EFAULT));
}
