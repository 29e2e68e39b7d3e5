plugins { application }
application { mainClass.set("shop.Batch") }
