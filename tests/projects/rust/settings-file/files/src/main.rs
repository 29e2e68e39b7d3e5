use newsletter::configuration::get_configuration;
fn main() {}
