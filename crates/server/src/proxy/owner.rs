//! The node that has what was asked for, and where it is.

use axum::http::Uri;
use axum::http::uri::{Authority, PathAndQuery, Scheme};
use outlive_core::id::NodeId;
use outlive_protocol::http::{Elsewhere, Problem};

use super::refusal;

/// A node that can be asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Owner {
    pub node: NodeId,
    pub name: String,
    pub authority: Authority,
}

impl Owner {
    /// The owner that a refusal `elsewhere` names.
    ///
    /// # Errors
    /// It has said no address, or one that is none.
    pub(crate) fn of(away: &Problem) -> Result<Self, Problem> {
        let there = away.elsewhere.as_ref().ok_or_else(refusal::session_moving)?;
        Self::at(there)
    }

    /// The node that is meant.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub(crate) fn at(there: &Elsewhere) -> Result<Self, Problem> {
        let Elsewhere { node, name, url } = there;
        let Some(url) = url else { return Err(refusal::no_address(name)) };
        let authority = url.parse::<Uri>().ok().and_then(|uri| {
            let is_plain = uri.scheme() == Some(&Scheme::HTTP);
            uri.into_parts().authority.filter(|_| is_plain)
        });
        let authority = authority.ok_or_else(|| refusal::bad_address(name, url))?;
        Ok(Self { node: *node, name: name.clone(), authority })
    }

    /// Where something of it is.
    pub(crate) fn uri(&self, path: PathAndQuery) -> Uri {
        let built =
            Uri::builder().scheme(Scheme::HTTP).authority(self.authority.clone()).path_and_query(path);
        built.build().expect("each part is valid")
    }
}
