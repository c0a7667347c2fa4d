//! Stores in the desktop's keyring (Secret Service) and in the kernel's.
