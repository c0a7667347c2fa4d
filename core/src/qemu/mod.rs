//! QEMU: master keys, `secret` objects, and the command line that names them.
