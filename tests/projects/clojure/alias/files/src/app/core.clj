(ns app.core)
(defn -main [] (println "x"))
