//! keyhaul on real QEMU.
