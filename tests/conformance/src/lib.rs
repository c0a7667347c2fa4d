//! The contract of keyhaul stores as a test suite, and fixtures.
