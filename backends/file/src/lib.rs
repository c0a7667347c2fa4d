//! keyhaul's encrypted file store, and QEMU's clear-text files.
