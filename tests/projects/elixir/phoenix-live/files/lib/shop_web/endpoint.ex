defmodule ShopWeb.Endpoint do
end
