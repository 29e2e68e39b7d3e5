use std::net::TcpListener;
fn main() {
    let l = TcpListener::bind("127.0.0.1:7878").unwrap();
}
