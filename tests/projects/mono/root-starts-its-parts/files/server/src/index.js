import express from 'express';
express().listen(8000);
