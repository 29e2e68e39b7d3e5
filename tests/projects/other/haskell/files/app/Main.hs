import Web.Scotty
main = scotty 3001 $ do
  get "/" $ text "x"
