//! Stores in Vault and OpenBao.
