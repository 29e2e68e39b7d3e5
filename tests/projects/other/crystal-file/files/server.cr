require "http/server"
server = HTTP::Server.new do |context|
  context.response.print "Hello"
end
server.bind_tcp 8080
server.listen
