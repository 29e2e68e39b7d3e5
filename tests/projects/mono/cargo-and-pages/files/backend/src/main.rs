use actix_web::App;
fn main() { HttpServer::new(x).bind(("0.0.0.0", 8080)) }
