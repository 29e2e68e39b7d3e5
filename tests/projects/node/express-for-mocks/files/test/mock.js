const express = require('express');
express().listen(9999);
