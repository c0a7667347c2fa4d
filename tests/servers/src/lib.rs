//! Real servers for the tests, on loopback and free ports, gone when their handles are.
