tcp::acceptor acceptor{ioc, {address, port}};
