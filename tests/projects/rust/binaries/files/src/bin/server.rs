use actix_web::App;
fn main() { bind("0.0.0.0:8080"); }
