module k
require github.com/go-kratos/kratos/v2 v2.7.0
