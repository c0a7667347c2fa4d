//! Values, from the token straight into locked memory.
//!
//! `cryptoki` hands values out in vectors, after a copy in another vector, and wipes neither. So
//! this one call is made by hand. All `unsafe` of the crate is in this file.

use std::path::Path;
use std::ptr;

use cryptoki::context::Function;
use cryptoki::error::{Error as Pkcs11Error, Rv};
use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;
use cryptoki_sys::{
    CK_ATTRIBUTE, CK_ATTRIBUTE_PTR, CK_FUNCTION_LIST, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE,
    CK_ULONG, CK_UNAVAILABLE_INFORMATION, CKA_VALUE, CKR_BUFFER_TOO_SMALL,
};
use keyhaul_core::{Error, ErrorKind, SecretBytes};

use crate::MAX_VALUE;
use crate::error::Failure;

type GetAttributeValue =
    unsafe extern "C" fn(CK_SESSION_HANDLE, CK_OBJECT_HANDLE, CK_ATTRIBUTE_PTR, CK_ULONG) -> CK_RV;

/// Reads values of objects.
#[derive(Clone, Copy)]
pub(crate) struct Values(GetAttributeValue);

impl Values {
    /// The reader of the library at `path`, which is loaded already and stays so.
    pub(crate) fn of_library(path: &Path) -> Result<Self, Failure> {
        // SAFETY: the library was loaded from this path before: its initialisers have run.
        let library = unsafe { cryptoki_sys::Pkcs11::new(path) };
        let library = library.map_err(Pkcs11Error::LibraryLoading)?;
        let missing = Pkcs11Error::MissingSymbol("C_GetFunctionList");
        let list_functions = match &library.C_GetFunctionList {
            Ok(function) => *function,
            Err(_) => return Err(missing.into()),
        };
        let mut list: *mut CK_FUNCTION_LIST = ptr::null_mut();
        // SAFETY: by the standard, the function writes one pointer to where it is told.
        let answer = unsafe { list_functions(&mut list) };
        Rv::from(answer).into_result(Function::GetFunctionList)?;
        if list.is_null() {
            return Err(missing.into());
        }
        // SAFETY: by the standard, it points to the library's own list of functions, which lives
        // as long as the library.
        let function = unsafe { (*list).C_GetAttributeValue };
        // Never unloaded: the function is used until the process ends.
        std::mem::forget(library);
        function
            .map(Self)
            .ok_or_else(|| Pkcs11Error::NullFunctionPointer.into())
    }

    /// The value of an object.
    ///
    /// # Errors
    /// [`Failure::Moved`] where it changes its length meanwhile.
    pub(crate) fn read(
        self,
        session: &Session,
        object: ObjectHandle,
    ) -> Result<SecretBytes, Failure> {
        let mut value = CK_ATTRIBUTE {
            type_: CKA_VALUE,
            pValue: ptr::null_mut(),
            ulValueLen: 0,
        };
        self.ask(session, object, &mut value)?;
        let len = value.ulValueLen;
        if len == CK_UNAVAILABLE_INFORMATION {
            return Err(Failure::Told(Error::new(
                ErrorKind::PermissionDenied,
                "the token has the object and does not give its value",
            )));
        }
        let len = usize::try_from(len)
            .ok()
            .filter(|len| *len <= MAX_VALUE)
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::TooLarge,
                    format!("the object's value is over the limit of {MAX_VALUE} bytes"),
                )
            })?;
        if len == 0 {
            return Ok(SecretBytes::copy_from(&[]));
        }
        SecretBytes::try_init_with(len, |bytes| {
            value.pValue = bytes.as_mut_ptr().cast();
            value.ulValueLen = bytes.len() as CK_ULONG;
            self.ask(session, object, &mut value)?;
            if value.ulValueLen as usize == bytes.len() {
                Ok(())
            } else {
                Err(Failure::Moved)
            }
        })
    }

    /// One attribute, to where `attribute` points: only its length where that is nowhere.
    fn ask(
        self,
        session: &Session,
        object: ObjectHandle,
        attribute: &mut CK_ATTRIBUTE,
    ) -> Result<(), Failure> {
        // SAFETY: one attribute is passed, and one is said to be. It points nowhere, or to a live
        // buffer of ours that is as long as it says.
        let answer = unsafe { (self.0)(session.handle(), object.handle(), attribute, 1) };
        if answer == CKR_BUFFER_TOO_SMALL {
            return Err(Failure::Moved);
        }
        Ok(Rv::from(answer).into_result(Function::GetAttributeValue)?)
    }
}
