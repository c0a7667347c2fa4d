//! What `linux-keyutils` does not ask the kernel, or not safely: its descriptions end at 512 bytes
//! with a panic and at the first `;` without a word, it does not tell a keyring's number, and it
//! cannot move a key.

use std::ffi::{c_int, c_long, c_ulong};

use linux_keyutils::{KeyError, KeyRingIdentifier};

// Numbers of <linux/keyctl.h>.
const GET_KEYRING_ID: c_int = 0;
const DESCRIBE: c_int = 6;
const READ: c_int = 11;
const GET_PERSISTENT: c_int = 22;
const MOVE: c_int = 30;
const MOVE_EXCL: c_ulong = 1;

/// A key's or keyring's number.
pub(super) type Serial = i32;

/// The number of a special keyring. It is not made where it is missing.
pub(super) fn keyring(special: KeyRingIdentifier) -> Result<Serial, KeyError> {
    serial(keyctl(GET_KEYRING_ID, [special as c_ulong, 0, 0, 0])?)
}

/// The number of the user's persistent keyring, which is linked into the thread's.
pub(super) fn persistent() -> Result<Serial, KeyError> {
    let own = c_ulong::from(u32::MAX);
    let thread = KeyRingIdentifier::Thread as c_ulong;
    serial(keyctl(GET_PERSISTENT, [own, thread, 0, 0])?)
}

/// A key's type and description. What is no UTF-8 is no key of ours.
pub(super) fn describe(key: Serial) -> Result<(String, String), KeyError> {
    // A description has at most 4095 bytes, before it type, numbers and separators.
    let mut text = vec![0_u8; 4096 + 128];
    let len = read_into(DESCRIBE, key, &mut text)?;
    // Longer than the buffer where the key is no `user` key.
    let text = text.get(..len).unwrap_or_default();
    let text = text.strip_suffix(b"\0").unwrap_or(text);
    let text = std::str::from_utf8(text).map_err(|_| KeyError::InvalidDescription)?;
    let mut parts = text.splitn(5, ';');
    match (parts.next(), parts.nth(3)) {
        (Some(kind), Some(description)) => Ok((kind.to_owned(), description.to_owned())),
        _ => Err(KeyError::InvalidDescription),
    }
}

/// The numbers of what is linked directly in a keyring.
pub(super) fn links(keyring: Serial) -> Result<Vec<Serial>, KeyError> {
    let mut bytes = vec![0_u8; 4096];
    loop {
        let len = read_into(READ, keyring, &mut bytes)?;
        if let Some(read) = bytes.get(..len) {
            let numbers = read.chunks_exact(size_of::<Serial>());
            return Ok(numbers
                .filter_map(|bytes| bytes.try_into().ok().map(Serial::from_ne_bytes))
                .collect());
        }
        bytes.resize(len.next_power_of_two(), 0);
    }
}

/// Moves a key out of the thread's keyring into `keyring`. False where one of its type and
/// description is there already.
pub(super) fn move_exclusively(key: Serial, keyring: Serial) -> Result<bool, KeyError> {
    let thread = KeyRingIdentifier::Thread as c_ulong;
    let moved = keyctl(
        MOVE,
        [key as c_ulong, thread, keyring as c_ulong, MOVE_EXCL],
    );
    match moved {
        Ok(_) => Ok(true),
        Err(KeyError::Unknown(libc::EEXIST)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Has the kernel write to `buffer`, and tells how much there is, which can be more than fits.
fn read_into(operation: c_int, key: Serial, buffer: &mut [u8]) -> Result<usize, KeyError> {
    let address = buffer.as_mut_ptr().expose_provenance() as c_ulong;
    let len = keyctl(
        operation,
        [key as c_ulong, address, buffer.len() as c_ulong, 0],
    )?;
    usize::try_from(len).map_err(|_| KeyError::InvalidArguments)
}

/// The one call. Private: its arguments can be addresses, which only [`read_into`] passes.
fn keyctl(operation: c_int, arguments: [c_ulong; 4]) -> Result<c_long, KeyError> {
    let [a, b, c, d] = arguments;
    // SAFETY: of the operations above, DESCRIBE and READ write to the address `b`, at most `c`
    // bytes; `read_into`, which alone asks for them, passes a buffer of its caller's, of that length.
    // The others take numbers.
    let answer = unsafe { libc::syscall(libc::SYS_keyctl, operation, a, b, c, d) };
    if answer < 0 {
        Err(KeyError::from_errno())
    } else {
        Ok(answer)
    }
}

fn serial(answer: c_long) -> Result<Serial, KeyError> {
    Serial::try_from(answer).map_err(|_| KeyError::InvalidIdentifier)
}
