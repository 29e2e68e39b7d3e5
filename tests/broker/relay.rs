//! A TCP relay before the broker that can be cut.

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// Passes bytes on until it is cut; refuses connections while it is.
pub(crate) struct Relay {
    pub(crate) address: String,
    open: watch::Sender<bool>,
    _accepting: AbortOnDropHandle<()>,
}

impl Relay {
    pub(crate) async fn new(target: &str) -> Self {
        let mut url = url::Url::parse(target).expect("the address is valid");
        let host = url.host_str().expect("the address has a host").to_owned();
        let target = (host, url.port().unwrap_or(5672));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        url.set_host(Some("127.0.0.1")).expect("the host is valid");
        url.set_port(Some(port)).expect("the port is valid");
        let open = watch::Sender::new(true);
        let switch = open.subscribe();
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                if *switch.borrow() {
                    tokio::spawn(pass(near, target.clone(), switch.clone()));
                }
            }
        });
        let _accepting = AbortOnDropHandle::new(accepting);
        Self { address: url.into(), open, _accepting }
    }

    pub(crate) fn cut(&self) {
        self.open.send_replace(false);
    }

    pub(crate) fn mend(&self) {
        self.open.send_replace(true);
    }
}

async fn pass(mut near: TcpStream, target: (String, u16), mut open: watch::Receiver<bool>) {
    let Ok(mut far) = TcpStream::connect(target).await else { return };
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
        _ = open.wait_for(|open| !open) => {}
    }
}
