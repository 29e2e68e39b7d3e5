console.log('a job that ends');
