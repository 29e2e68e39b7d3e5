require 'sinatra'
get '/' do
  'x'
end
