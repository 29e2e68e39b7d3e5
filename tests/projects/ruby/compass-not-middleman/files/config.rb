http_path = "/"
css_dir = "stylesheets"
