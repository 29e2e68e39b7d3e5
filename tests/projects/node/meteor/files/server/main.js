import { Meteor } from 'meteor/meteor';
