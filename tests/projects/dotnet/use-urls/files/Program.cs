builder.WebHost.UseUrls("http://*:6001");
