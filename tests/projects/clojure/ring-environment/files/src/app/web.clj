(ns app.web
  (:require [compojure.core :refer [defroutes GET]]
            [ring.adapter.jetty :as jetty]
            [environ.core :refer [env]]))
(defroutes app (GET "/" [] "hi"))
(defn -main [& [port]]
  (let [port (Integer. (or port (env :port) 5000))]
    (jetty/run-jetty #'app {:port port :join? false})))
