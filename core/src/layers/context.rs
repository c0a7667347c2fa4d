//! Errors that say where.

use futures_util::future::BoxFuture;

use super::{Call, Layer};
use crate::store::GetOptions;
use crate::{Result, Secret, SecretPath};

/// Adds the operation, the store's name and the path to errors that do not name them yet, so that
/// no backend has to.
///
/// Right: next to the backend, `Timeout::new(…).over(Context.over(store))`. Wrong: outside
/// everything, `Context.over(Audit::new(…).over(store))`: of a `get_many` that a layer splits or
/// joins, it would name what the caller asked and not what failed; and what lies below reports
/// errors without a place.
#[derive(Clone, Copy, Debug)]
pub struct Context;

impl Layer for Context {
    async fn around<'a, T, F>(&'a self, call: Call<'a>, attempt: F) -> Result<T>
    where
        T: Send + 'a,
        F: Fn() -> BoxFuture<'a, Result<T>> + Send + Sync + 'a,
    {
        attempt().await.map_err(|error| call.place(error))
    }

    async fn around_many<'a>(
        &'a self,
        call: Call<'a>,
        paths: &'a [SecretPath],
        options: &'a GetOptions,
    ) -> Vec<Result<Secret>> {
        let mut answers = call.store.get_many(paths, options).await;
        for (answer, path) in answers.iter_mut().zip(paths) {
            if let Err(error) = answer {
                *answer = Err(call.at(path).place(error.duplicate()));
            }
        }
        answers
    }
}
