(ns app
  (:require [ring.adapter.jetty :as jetty]))
(defn -main []
  (jetty/run-jetty handler {:port 3333}))
