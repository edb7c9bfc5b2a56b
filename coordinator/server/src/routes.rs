//! Which service a path belongs to.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tonic::{Status, body::Body, codegen::http, server::NamedService};
use tower::{Service, ServiceExt, util::BoxCloneSyncService};

type Boxed = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible>;

/// The services of one port.
#[derive(Clone, Default)]
pub struct Routes {
    services: Arc<Vec<(&'static str, Boxed)>>,
}

impl Routes {
    /// Adds a service under its own name.
    pub fn with<S>(mut self, service: S) -> Self
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        Arc::make_mut(&mut self.services).push((S::NAME, BoxCloneSyncService::new(service)));
        self
    }
}

impl Service<http::Request<Body>> for Routes {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let name = request.uri().path().split('/').nth(1).unwrap_or_default();
        match self.services.iter().find(|(service, _)| *service == name) {
            Some((_, service)) => Box::pin(service.clone().oneshot(request)),
            // The table knows it, but it is served on another port.
            None => {
                let path = request.uri().path().to_owned();
                Box::pin(
                    async move { Ok(Status::unimplemented(format!("{path} is not served on this port")).into_http()) },
                )
            }
        }
    }
}
