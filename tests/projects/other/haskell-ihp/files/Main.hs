main = IHP.Server.run config
