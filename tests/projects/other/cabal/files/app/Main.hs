main = putStrLn "x"
