//! The C half's source, for who compiles it against a tree.

/// A file, by name.
pub struct File {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub text: &'static str,
}

macro_rules! files {
    ($($name:literal)*) => { &[$(File { name: $name, text: include_str!(concat!("../c/", $name)) }),*] };
}

/// Headers and sources. Sources of the device (`k_xe*.c`) need the driver's headers.
pub const FILES: &[File] = files!(
    "kface.h" "k.h" "k_xe.h" "k_area.h" "k_vram.h" "k_books.h" "k_writer.h"
    "k_warn.c" "k_print.c" "k_order.c" "k_watch.c" "k_lock.c" "k_wait.c" "k_mem.c" "k_task.c" "k_area.c" "k_mm.c" "k_fork.c" "k_dma.c" "k_drm.c"
    "k_xe.c" "k_xe_bo.c" "k_xe_job.c" "k_books.c" "k_writer.c" "k_main.c"
    "k_scene.h" "k_scene.c" "k_scene_a.c" "k_scene_b.c" "k_scene_c.c" "k_scene_d.c" "k_scene_f.c" "k_scene_faults.c" "k_scene_life.c" "k_scene_diff.c" "k_scene_glue.c"
    "k_vram.c" "k_scene_memory.c"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_says_its_licence_first() {
        for file in FILES {
            let first = file.text.lines().next().unwrap_or("");
            assert!(first.contains("SPDX-License-Identifier: GPL-2.0-only OR MIT"), "{}: {first}", file.name);
        }
    }
}
