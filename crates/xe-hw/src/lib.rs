//! The software GPU: tiles, VRAM, walker, TLB, IOMMU, command streamers and copy engines.
#![forbid(unsafe_code)]
